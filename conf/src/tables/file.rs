//! Data files of tables.
