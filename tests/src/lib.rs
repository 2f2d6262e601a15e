//! Whole-ensemble and stock-client tests.
