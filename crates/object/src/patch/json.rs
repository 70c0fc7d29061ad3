//! JSON patch, RFC 6902, as `gopkg.in/evanphx/json-patch.v4` applies it: its leniencies (a replaced member need not exist,
//! negative indexes count from the end) and its messages.

use corten_tree::{Key, Tree};

use super::{PatchError, document};

/// Most operations in one patch.
pub const OPERATIONS_MAX: usize = 10_000;

/// Reads a patch: its operations, and strict errors.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<Tree>, Vec<String>), PatchError> {
    let bad = |message: String| PatchError::BadRequest(format!("error decoding patch: {message}"));
    let (tree, mut strict) = document(bytes).map_err(|error| bad(error.message))?;
    for path in strict.iter_mut() {
        *path = format!("json patch {path}");
    }
    let operations = match tree {
        Tree::List(operations) => operations,
        Tree::Null => Vec::new(),
        other => {
            let found = other.type_name();
            return Err(bad(format!("json: cannot unmarshal {found} into Go value of type []handlers.jsonPatchOp")));
        }
    };
    for (i, operation) in operations.iter().enumerate() {
        let Tree::Map(members) = operation else {
            let found = operation.type_name();
            return Err(bad(format!("json: cannot unmarshal {found} into Go value of type handlers.jsonPatchOp")));
        };
        for key in members.keys().filter(|key| !["op", "path", "from", "value"].contains(key)) {
            strict.push(format!("json patch unknown field \"[{i}].{key}\""));
        }
    }
    Ok((operations, strict))
}

/// Applies operations one after the other; if one fails, none has happened.
pub fn json_patch(mut object: Tree, operations: &[Tree]) -> Result<Tree, PatchError> {
    if operations.len() > OPERATIONS_MAX {
        let got = operations.len();
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {got}"
        )));
    }
    for operation in operations {
        apply_one(&mut object, operation).map_err(PatchError::Unprocessable)?;
    }
    Ok(object)
}

const MISSING: &str = "missing value";

type Outcome<T> = Result<T, String>;

fn apply_one(object: &mut Tree, operation: &Tree) -> Outcome<()> {
    let kind = operation.get("op").and_then(Tree::as_str).unwrap_or("unknown");
    match kind {
        "add" => add(object, operation),
        "remove" => remove(object, operation),
        "replace" => replace(object, operation),
        "move" => r#move(object, operation),
        "copy" => copy(object, operation),
        "test" => test(object, operation),
        other => Err(format!("Unexpected kind: {other}")),
    }
}

fn text<'a>(operation: &'a Tree, name: &str, missing: &str) -> Outcome<&'a str> {
    operation.get(name).and_then(Tree::as_str).ok_or_else(|| format!("{missing}: {MISSING}"))
}

/// The value to put; one that is missing is null.
fn operand(operation: &Tree) -> Tree {
    operation.get("value").cloned().unwrap_or_default()
}

/// The map or list that holds the last part of a pointer, and that part.
fn find<'a>(object: &'a mut Tree, pointer: &str) -> Option<(&'a mut Tree, String)> {
    let decode = |part: &str| part.replace("~1", "/").replace("~0", "~");
    let (_, rest) = pointer.split_once('/')?;
    let mut parts: Vec<&str> = rest.split('/').collect();
    let last = decode(parts.pop()?);
    let mut at = object;
    for part in parts {
        at = get_mut(at, &decode(part)).ok()??;
    }
    matches!(at, Tree::Map(_) | Tree::List(_)).then_some((at, last))
}

fn number(part: &str) -> Outcome<i64> {
    let digits = part.strip_prefix(['-', '+']).unwrap_or(part);
    let formed = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match part.strip_prefix('+').unwrap_or(part).parse() {
        Ok(n) if formed => Ok(n),
        _ if formed => Err(format!("strconv.Atoi: parsing {part:?}: value out of range")),
        _ => Err(format!("strconv.Atoi: parsing {part:?}: invalid syntax")),
    }
}

/// A position below `length`; a negative one counts from the end.
fn index(part: &str, length: usize) -> Outcome<usize> {
    let n = number(part)?;
    let at = if n < 0 { n + length as i64 } else { n };
    match usize::try_from(at) {
        Ok(at) if at < length => Ok(at),
        _ => Err(format!("Unable to access invalid index: {n}: invalid index referenced")),
    }
}

/// A member or item; a member that is not there is `None`.
fn get_mut<'a>(container: &'a mut Tree, part: &str) -> Outcome<Option<&'a mut Tree>> {
    match container {
        Tree::Map(map) => Ok(map.get_mut(part)),
        Tree::List(items) => {
            let at = index(part, items.len())?;
            Ok(items.get_mut(at))
        }
        _ => Ok(None),
    }
}

fn put(container: &mut Tree, part: String, value: Tree) -> Outcome<()> {
    match container {
        Tree::Map(map) => {
            map.insert(Key::from(part), value);
        }
        Tree::List(items) if part == "-" => items.push(value),
        Tree::List(items) => {
            number(&part).map_err(|error| format!("value was not a proper array index: '{part}': {error}"))?;
            let at = index(&part, items.len() + 1)?;
            items.insert(at, value);
        }
        _ => {}
    }
    Ok(())
}

fn take(container: &mut Tree, part: &str) -> Outcome<Tree> {
    match container {
        Tree::Map(map) => {
            map.remove(part).ok_or_else(|| format!("Unable to remove nonexistent key: {part}: {MISSING}"))
        }
        Tree::List(items) => {
            let at = index(part, items.len())?;
            Ok(items.remove(at))
        }
        _ => Ok(Tree::Null),
    }
}

fn add(object: &mut Tree, operation: &Tree) -> Outcome<()> {
    let path = text(operation, "path", "add operation failed to decode path")?;
    let (container, part) = find(object, path)
        .ok_or_else(|| format!("add operation does not apply: doc is missing path: \"{path}\": {MISSING}"))?;
    put(container, part, operand(operation)).map_err(|error| format!("error in add for path: '{path}': {error}"))
}

fn remove(object: &mut Tree, operation: &Tree) -> Outcome<()> {
    let path = text(operation, "path", "remove operation failed to decode path")?;
    let (container, part) = find(object, path)
        .ok_or_else(|| format!("remove operation does not apply: doc is missing path: \"{path}\": {MISSING}"))?;
    take(container, &part).map(drop).map_err(|error| format!("error in remove for path: '{path}': {error}"))
}

fn replace(object: &mut Tree, operation: &Tree) -> Outcome<()> {
    let path = text(operation, "path", "replace operation failed to decode path: operation missing path field")?;
    if path.is_empty() {
        return match operand(operation) {
            value @ (Tree::Map(_) | Tree::List(_)) => {
                *object = value;
                Ok(())
            }
            _ => Err("replace operation value must be object or array: %!w(<nil>)".into()),
        };
    }
    let (container, part) = find(object, path)
        .ok_or_else(|| format!("replace operation does not apply: doc is missing path: {path}: {MISSING}"))?;
    match get_mut(container, &part) {
        Err(_) => Err(format!("replace operation does not apply: doc is missing key: {path}: {MISSING}")),
        Ok(Some(slot)) => {
            *slot = operand(operation);
            Ok(())
        }
        Ok(None) => put(container, part, operand(operation)),
    }
}

fn r#move(object: &mut Tree, operation: &Tree) -> Outcome<()> {
    let from = text(operation, "from", "move operation failed to decode from: operation, missing from field")?;
    let (container, part) = find(object, from)
        .ok_or_else(|| format!("move operation does not apply: doc is missing from path: {from}: {MISSING}"))?;
    let value = take(container, &part).map_err(|error| format!("error in move for path: '{part}': {error}"))?;
    let path = text(operation, "path", "move operation failed to decode path: operation missing path field")?;
    let (container, part) = find(object, path)
        .ok_or_else(|| format!("move operation does not apply: doc is missing destination path: {path}: {MISSING}"))?;
    put(container, part, value).map_err(|error| format!("error in move for path: '{path}': {error}"))
}

fn copy(object: &mut Tree, operation: &Tree) -> Outcome<()> {
    let from = text(operation, "from", "copy operation failed to decode from: operation, missing from field")?;
    let (container, part) = find(object, from)
        .ok_or_else(|| format!("copy operation does not apply: doc is missing from path: {from}: {MISSING}"))?;
    let value = get_mut(container, &part).map_err(|error| format!("error in copy for from: '{from}': {error}"))?;
    let value = value.cloned().unwrap_or_default();
    let path = text(operation, "path", "copy operation failed to decode path")?;
    let (container, part) = find(object, path)
        .ok_or_else(|| format!("copy operation does not apply: doc is missing destination path: {path}: {MISSING}"))?;
    put(container, part, value).map_err(|error| format!("error while adding value during copy: {error}"))
}

fn test(object: &mut Tree, operation: &Tree) -> Outcome<()> {
    let path = text(operation, "path", "test operation failed to decode path: operation missing path field")?;
    let wanted = operand(operation);
    let found = if path.is_empty() {
        Some(object)
    } else {
        let (container, part) = find(object, path)
            .ok_or_else(|| format!("test operation does not apply: is missing path: {path}: {MISSING}"))?;
        get_mut(container, &part).map_err(|error| format!("error in test for path: '{path}': {error}"))?
    };
    let equal = found.map_or(wanted.is_null(), |found| same(found, &wanted));
    if equal { Ok(()) } else { Err(format!("testing value {path} failed: test failed")) }
}

/// Equality of JSON values: the order of members does not count.
pub(super) fn same(a: &Tree, b: &Tree) -> bool {
    match (a, b) {
        (Tree::Map(a), Tree::Map(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (Tree::List(a), Tree::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(x, y)| same(x, y)),
        (a, b) => a == b,
    }
}
