//! The crate's error.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// What can go wrong between plain data and kernel state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The kernel refused a request; `what` says which.
    #[error("{what}: {source}")]
    Kernel {
        /// The request, as a phrase such as `create link cnab12cd-0002`.
        what: String,
        /// The kernel's errno.
        source: io::Error,
    },
    /// A file below the state directory or `/proc/sys` could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The pod range of this node has no free address.
    #[error("no free address in {cidr}: {used} in use")]
    RangeFull {
        /// The node's pod range.
        cidr: String,
        /// Addresses in use.
        used: usize,
    },
    /// A host port is taken by another pod of this node.
    #[error("host port {port}/{protocol} is taken by sandbox {holder}")]
    HostPortTaken {
        /// The port.
        port: u16,
        /// `TCP`, `UDP` or `SCTP`.
        protocol: &'static str,
        /// The sandbox that holds it.
        holder: String,
    },
    /// A value handed in cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// An address family that is not supported.
    #[error("{0}: only IPv4 is supported so far")]
    Family(IpAddr),
    /// The kernel thread has ended: the network is being torn down.
    #[error("the network thread has ended")]
    Closed,
}

impl NetError {
    pub(crate) fn kernel(what: impl Into<String>, source: io::Error) -> Self {
        NetError::Kernel { what: what.into(), source }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, source: io::Error) -> Self {
        NetError::File { path: path.into(), source }
    }

    /// The errno, where the kernel or a file was the cause.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetError::Kernel { source, .. } | NetError::File { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
