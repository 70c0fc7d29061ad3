//! The functions, one file per library.

pub(crate) mod authorizer;
pub(crate) mod comparison;
pub(crate) mod conversion;
pub(crate) mod format;
pub(crate) mod jsonpatch;
pub(crate) mod lists;
pub mod named_format;
pub mod net;
pub(crate) mod optional;
pub(crate) mod quantity;
pub(crate) mod regex;
pub mod semver;
pub(crate) mod sets;
pub(crate) mod standard;
pub(crate) mod strings;
pub(crate) mod times;
pub mod url;

use crate::error::EvalError;
use crate::function::Library;
use crate::value::Value;

/// All libraries. Within a function, overloads are tried in this order.
pub(crate) const ALL: &[Library] = &[
    standard::LIBRARY,
    comparison::LIBRARY,
    conversion::LIBRARY,
    times::LIBRARY,
    url::LIBRARY,
    regex::LIBRARY,
    strings::LIBRARY,
    format::LIBRARY,
    lists::KUBERNETES,
    authorizer::LIBRARY,
    optional::LIBRARY,
    quantity::LIBRARY,
    sets::LIBRARY,
    net::LIBRARY,
    named_format::LIBRARY,
    authorizer::SELECTORS,
    standard::TWO_VARIABLES,
    semver::LIBRARY,
    lists::EXTENSION,
    lists::INCLUDES,
    jsonpatch::LIBRARY,
];

/// Functions that convert to a type: with a constant argument they are computed while planning (`IsTypeConversionFunction`).
pub(crate) fn is_conversion(function: &str) -> bool {
    matches!(
        function,
        "bool" | "bytes" | "double" | "duration" | "dyn" | "int" | "string" | "timestamp" | "type" | "uint"
    )
}

/// The error of a call whose arguments fit no overload.
pub(crate) fn no_overload(function: &str, args: &[Value<'_>]) -> EvalError {
    if function.starts_with(['_', '@', '!', '-']) {
        return EvalError::no_such_overload();
    }
    let types: Vec<String> = args.iter().map(|arg| arg.type_of().runtime_name().to_owned()).collect();
    EvalError::new(format!("no such overload: {function}({})", types.join(", ")))
}

/// Takes arguments as the types that the overload declares: `take!(args => Str(text), Int(n))` in functions that return a result.
macro_rules! take {
    ($args:expr => $($kind:ident($name:pat)),+ $(,)?) => {
        let [$($crate::value::Value::$kind($name)),+] = $args else {
            return Err($crate::error::EvalError::no_such_overload());
        };
    };
}
pub(crate) use take;
