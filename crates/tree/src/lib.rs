//! A JSON document as an ordered tree: parse, path, edit, write as Go does.
