//! Directory server: names and attributes.
