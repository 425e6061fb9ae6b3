//! Rows of a file (CSV, Parquet, JSON lines) as tensors, in batches of bounded memory.
