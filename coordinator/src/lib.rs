//! Coordinator: format, membership, routing table, intention log.
