"""Models as scikit-learn, LightGBM and XGBoost export them, made anew by each test run."""
