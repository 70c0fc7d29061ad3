//! Image store: import, build, unpack, list, remove; the built-in image.
