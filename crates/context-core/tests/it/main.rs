//! What is measured of the crate from the outside, in a process whose allocations are counted.

mod allocations;
