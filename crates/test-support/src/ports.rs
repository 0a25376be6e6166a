//! Free loopback ports.

use std::net::{Ipv4Addr, TcpListener};

use crate::{Error, Result};

/// Finds `count` different free TCP ports on 127.0.0.1.
///
/// All listeners are bound before any is released, so the ports differ. Between the release and the server's own
/// bind another process may take one; whoever starts servers has to expect that and try again with new ports.
///
/// # Errors
///
/// When the system has no port left.
pub fn free(count: usize) -> Result<Vec<u16>> {
    let bind =
        || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| Error::io("bind a loopback port", e));
    let listeners = (0..count).map(|_| bind()).collect::<Result<Vec<_>>>()?;
    listeners
        .iter()
        .map(|listener| {
            listener
                .local_addr()
                .map(|addr| addr.port())
                .map_err(|e| Error::io("read a bound port", e))
        })
        .collect()
}

#[cfg(test)]
mod tests;
