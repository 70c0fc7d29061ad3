//! The watch cache: maps, indexes, ring, cursors.
