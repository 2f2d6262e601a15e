//! Small-file server: the first 64 KiB of every file.
