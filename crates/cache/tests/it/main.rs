//! The public face of the crate, from outside.
#![cfg(not(loom))]

#[cfg(test)]
mod allocations;
#[cfg(test)]
mod building;
#[cfg(test)]
mod changing;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod flying;
#[cfg(test)]
mod loading;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod source;
#[cfg(test)]
mod warming;
