//! diaspore-testkit
