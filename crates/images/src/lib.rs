//! Image store: import, build, pull, unpack, list, remove; the built-in image.
//!
//! Everything but [`Registry`] blocks (it is disk work): async callers run it on a thread made for that. See [`ImageStore`] for the layout
//! on disk and for what several processes may do at once.

mod ahead;
mod archive;
mod build;
mod builtin;
mod compression;
mod digest;
mod elf;
mod error;
mod import;
mod oci;
mod preload;
mod records;
mod reference;
mod registry;
mod store;
mod unpack;
mod writers;

pub use build::{BuildOptions, CONFIG_FILE};
pub use builtin::{Builtin, BuiltinImage, is_builtin};
pub use digest::Digest;
pub use error::{ImageError, Result};
pub use oci::{ImageConfig, Set};
pub use reference::Reference;
pub use registry::{Hosts, Keyring, Login, Progress, PullError, Pulled, Registry, SecretRef};
pub use store::{Freed, Image, ImageStore, Imported, Layer, Rootfs};
