//! Error isolation and PostgreSQL's semantics, one expression a line.
