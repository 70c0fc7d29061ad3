//! Volumes on a node: emptyDir, hostPath, atomic projected files, local-path.
