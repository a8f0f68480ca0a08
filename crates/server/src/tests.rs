//! Handler tests over a running engine.
