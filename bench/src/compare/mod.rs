//! `compare`: Quantum beside its peers on the same paths, in one run.

pub mod model;
pub mod report;
