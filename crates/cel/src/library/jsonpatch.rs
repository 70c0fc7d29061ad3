//! JSON patches of mutations (`k8s.io/apiserver/pkg/cel/library/jsonpatch.go`).

use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::library::take;
use crate::value::Value;

/// In upstream only the environments of mutations have it; elsewhere there is nothing to use it for.
pub(crate) const LIBRARY: Library = Library {
    since: Version(1, 32),
    rows: &[Row("jsonpatch.escapeKey", "string_jsonpatch_escapeKey_string", "(string) -> string", escape_key)],
};

fn escape_key<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    take!(args => Str(key));
    Ok(Value::str(key.replace('~', "~0").replace('/', "~1")))
}
