"""Reference classifiers, scores in their feature space, and the protocol behind `report.json`."""
