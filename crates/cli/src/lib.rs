//! Commands shaped like kubectl's, and cluster lifecycle.
