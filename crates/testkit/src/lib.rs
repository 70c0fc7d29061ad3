//! What tests share: kubectl, images, clusters, leftovers.
