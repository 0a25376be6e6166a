#![doc = include_str!("../README.md")]

pub mod app;
pub mod auth;
pub mod caching;
pub mod cli;
pub mod config;
pub mod cursor;
mod endpoint;
pub mod listener;
pub mod mcp;
mod reload;
pub mod rest;
pub mod semantic;
mod session;
pub mod shutdown;
pub mod summaries;
pub mod sweeper;
pub mod telemetry;
mod timer;
pub mod transfer;
