//! The patches: JSON patch, merge patch, strategic merge patch.
