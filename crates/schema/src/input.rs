//! What the decoder reads from: JSON bytes, or a tree that stands for them.

use std::borrow::Cow;

use corten_tree::json::{DEPTH_MAX, JsonError, Kind, Reader, write_float};
use corten_tree::{Key, RawJson, Tree};

/// A pull reader over one JSON value, as [`Reader`] is.
pub(crate) trait Input<'a> {
    fn peek(&mut self) -> Result<Kind, JsonError>;
    fn null(&mut self) -> Result<(), JsonError>;
    fn bool(&mut self) -> Result<bool, JsonError>;
    fn number_text(&mut self) -> Result<Cow<'a, str>, JsonError>;
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError>;
    fn begin_map(&mut self) -> Result<(), JsonError>;
    fn next_key(&mut self) -> Result<Option<Cow<'a, str>>, JsonError>;
    fn begin_list(&mut self) -> Result<(), JsonError>;
    fn next_item(&mut self) -> Result<bool, JsonError>;
    fn skip(&mut self) -> Result<(), JsonError>;
    fn tree(&mut self) -> Result<Tree, JsonError>;
    /// A value that is not taken apart.
    fn raw(&mut self) -> Result<Tree, JsonError>;
    fn end(&mut self) -> Result<(), JsonError>;
}

impl<'a> Input<'a> for Reader<'a> {
    #[inline]
    fn peek(&mut self) -> Result<Kind, JsonError> {
        Reader::peek(self)
    }
    fn null(&mut self) -> Result<(), JsonError> {
        Reader::null(self)
    }
    fn bool(&mut self) -> Result<bool, JsonError> {
        Reader::bool(self)
    }
    fn number_text(&mut self) -> Result<Cow<'a, str>, JsonError> {
        Reader::number_text(self).map(Cow::Borrowed)
    }
    #[inline]
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        Reader::string(self)
    }
    fn begin_map(&mut self) -> Result<(), JsonError> {
        Reader::begin_map(self)
    }
    #[inline]
    fn next_key(&mut self) -> Result<Option<Cow<'a, str>>, JsonError> {
        Reader::next_key(self)
    }
    fn begin_list(&mut self) -> Result<(), JsonError> {
        Reader::begin_list(self)
    }
    fn next_item(&mut self) -> Result<bool, JsonError> {
        Reader::next_item(self)
    }
    fn skip(&mut self) -> Result<(), JsonError> {
        Reader::skip(self).map(drop)
    }
    fn tree(&mut self) -> Result<Tree, JsonError> {
        Reader::tree(self)
    }
    fn raw(&mut self) -> Result<Tree, JsonError> {
        Reader::raw(self)
    }
    fn end(&mut self) -> Result<(), JsonError> {
        Reader::end(self)
    }
}

/// Reads a tree as if it were JSON text. The caller peeks before it reads, so a wrong kind is its bug.
pub(crate) struct TreeReader<'a> {
    next: Option<&'a Tree>,
    open: Vec<Frame<'a>>,
}

enum Frame<'a> {
    Map(std::slice::Iter<'a, (Key, Tree)>),
    List(std::slice::Iter<'a, Tree>),
}

impl<'a> TreeReader<'a> {
    pub(crate) fn new(tree: &'a Tree) -> TreeReader<'a> {
        TreeReader { next: Some(tree), open: Vec::new() }
    }

    fn take(&mut self) -> Result<&'a Tree, JsonError> {
        self.next.take().ok_or_else(|| error("unexpected end of JSON input"))
    }

    fn push(&mut self, frame: Frame<'a>) -> Result<(), JsonError> {
        if self.open.len() == DEPTH_MAX {
            return Err(error("exceeded max depth"));
        }
        self.open.push(frame);
        Ok(())
    }
}

fn error(message: &str) -> JsonError {
    JsonError { message: message.to_owned(), offset: 0 }
}

impl<'a> Input<'a> for TreeReader<'a> {
    fn peek(&mut self) -> Result<Kind, JsonError> {
        Ok(match self.next.ok_or_else(|| error("unexpected end of JSON input"))? {
            Tree::Null => Kind::Null,
            Tree::Bool(_) => Kind::Bool,
            Tree::Int(_) | Tree::Float(_) => Kind::Number,
            Tree::Str(_) => Kind::Str,
            Tree::List(_) => Kind::List,
            Tree::Map(_) | Tree::Raw(_) => Kind::Map,
        })
    }

    fn null(&mut self) -> Result<(), JsonError> {
        self.take().map(drop)
    }

    fn bool(&mut self) -> Result<bool, JsonError> {
        self.take()?.as_bool().ok_or_else(|| error("not a boolean"))
    }

    fn number_text(&mut self) -> Result<Cow<'a, str>, JsonError> {
        match self.take()? {
            Tree::Int(n) => Ok(n.to_string().into()),
            Tree::Float(n) => {
                let mut text = Vec::new();
                write_float(&mut text, *n);
                Ok(String::from_utf8_lossy(&text).into_owned().into())
            }
            _ => Err(error("not a number")),
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.take()?.as_str().map(Cow::Borrowed).ok_or_else(|| error("not a text"))
    }

    fn begin_map(&mut self) -> Result<(), JsonError> {
        let map = self.take()?.as_map().ok_or_else(|| error("not an object"))?;
        self.push(Frame::Map(map.as_slice().iter()))
    }

    fn next_key(&mut self) -> Result<Option<Cow<'a, str>>, JsonError> {
        let Some(Frame::Map(entries)) = self.open.last_mut() else { return Err(error("not in an object")) };
        match entries.next() {
            Some((key, value)) => {
                self.next = Some(value);
                Ok(Some(Cow::Borrowed(key)))
            }
            None => {
                self.open.pop();
                Ok(None)
            }
        }
    }

    fn begin_list(&mut self) -> Result<(), JsonError> {
        let items = self.take()?.as_list().ok_or_else(|| error("not an array"))?;
        self.push(Frame::List(items.iter()))
    }

    fn next_item(&mut self) -> Result<bool, JsonError> {
        let Some(Frame::List(items)) = self.open.last_mut() else { return Err(error("not in an array")) };
        self.next = items.next();
        if self.next.is_none() {
            self.open.pop();
        }
        Ok(self.next.is_some())
    }

    fn skip(&mut self) -> Result<(), JsonError> {
        self.take().map(drop)
    }

    fn tree(&mut self) -> Result<Tree, JsonError> {
        self.take().cloned()
    }

    fn raw(&mut self) -> Result<Tree, JsonError> {
        Ok(match self.take()? {
            map @ Tree::Map(_) => Tree::Raw(RawJson::new_unchecked(&map.to_json_string())),
            other => other.clone(),
        })
    }

    fn end(&mut self) -> Result<(), JsonError> {
        Ok(())
    }
}
