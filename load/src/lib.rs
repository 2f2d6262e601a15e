//! Workload generator over raw NFSv3.
