//! diaspore-benches
