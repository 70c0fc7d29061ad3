//! Volumes on a node: emptyDir, hostPath, images, atomic projected files, local-path, subPath, fsGroup.
//!
//! Primitives that know nothing of pods: paths and modes in, file systems out. All of them block for as long as the disk takes,
//! all may be called again after a crash in the middle, and all but plain directories need root.

mod empty_dir;
mod error;
mod host_path;
mod image_volume;
mod local_path;
mod mounts;
mod ownership;
mod projected;
mod sub_path;

pub use empty_dir::{Medium, Usage, empty_dir, usage};
pub use error::{Result, VolumeError};
pub use host_path::{HostPathType, host_path};
pub use image_volume::image_volume;
pub use local_path::LocalPath;
pub use mounts::{is_mount_point, mounts_below, remove_dir, unmount_below};
pub use ownership::{GroupPolicy, give_to_group};
pub use projected::{ProjectedFile, write_projected};
pub use sub_path::{bind_sub_path, open_sub_path, sub_path_exists};
