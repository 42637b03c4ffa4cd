"""The papers' models, one paper per file: a frozen config, the modules, and a learner."""
