//! What a table is asked for.
