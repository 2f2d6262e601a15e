//! Durable ordered key-value store behind one small trait.
