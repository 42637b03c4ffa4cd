"""The papers' models, one model per file: a frozen config, the modules, and a learner."""
