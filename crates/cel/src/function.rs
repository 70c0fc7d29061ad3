//! Functions: how the libraries declare them, and which there are at a version.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use corten_tree::Tree;

use crate::env::Version;
use crate::error::EvalError;
use crate::library;
use crate::types::{Type, split_args};
use crate::value::Value;

/// What runs. The arguments are as the overload declares them; a member's target is the first.
pub(crate) type Run = for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, EvalError>;

/// One overload in a library's table: function, cel-go's name of the overload, signature, implementation.
/// A signature is `(int, string) -> bool`, or `list(A).(int) -> A` for a member.
pub(crate) struct Row(pub(crate) &'static str, pub(crate) &'static str, pub(crate) &'static str, pub(crate) Run);

/// A library: its functions, and the versions of Kubernetes that have them (`pkg/cel/environment/base.go`).
pub(crate) struct Library {
    pub(crate) since: Version,
    pub(crate) rows: &'static [Row],
}

/// One overload.
pub(crate) struct Overload {
    pub(crate) id: &'static str,
    pub(crate) member: bool,
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
    pub(crate) run: Run,
}

/// A function: overloads in order of their declaration.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) overloads: Vec<Overload>,
}

/// All functions of a version.
pub(crate) struct Functions(BTreeMap<&'static str, Arc<Function>>);

impl Functions {
    /// The functions at a version.
    pub(crate) fn at(version: Version) -> Arc<Functions> {
        static MADE: LazyLock<Mutex<BTreeMap<Version, Arc<Functions>>>> = LazyLock::new(Mutex::default);
        // Versions are those of the code that asks, never of a request: the map stays small.
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        made.entry(version).or_insert_with(|| Arc::new(Functions::build(version))).clone()
    }

    fn build(version: Version) -> Functions {
        let mut functions: BTreeMap<&'static str, Function> = BTreeMap::new();
        for library in library::ALL.iter().filter(|library| library.since <= version) {
            for Row(name, id, signature, run) in library.rows {
                let overload = overload(id, signature, *run);
                functions
                    .entry(name)
                    .or_insert_with(|| Function { name, overloads: Vec::new() })
                    .overloads
                    .push(overload);
            }
        }
        Functions(functions.into_iter().map(|(name, function)| (name, Arc::new(function))).collect())
    }

    /// The function of this name; a leading dot is not part of it.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Function>> {
        self.0.get(name.strip_prefix('.').unwrap_or(name))
    }
}

fn overload(id: &'static str, signature: &'static str, run: Run) -> Overload {
    let (args, result) = signature.rsplit_once(" -> ").expect("the tables have results");
    let open = if args.starts_with('(') { 0 } else { args.find(".(").expect("the tables have arguments") + 1 };
    let list = args[open..].strip_prefix('(').and_then(|list| list.strip_suffix(')')).expect("the tables close theirs");
    let member = open > 0;
    let target = member.then(|| Type::parse(&args[..open - 1]));
    let args = target.into_iter().chain(split_args(list).into_iter().map(Type::parse)).collect();
    Overload { id, member, args, result: Type::parse(result), run }
}

impl Overload {
    /// Whether the arguments are of the declared types, as far as upstream looks (`decls.go`, matchesRuntimeSignature).
    pub(crate) fn accepts(&self, args: &[Value<'_>]) -> bool {
        if self.id == "list_flatten" {
            // Declared for lists of lists, but whatever is no list stays as it is (`decls.DisableTypeGuards`).
            return args.len() == 1 && args[0].as_list().is_some();
        }
        self.args.len() == args.len() && self.args.iter().zip(args).all(|(ty, value)| is_of(ty, value))
    }
}

fn is_of(ty: &Type, value: &Value<'_>) -> bool {
    match (ty, value) {
        (Type::Dyn | Type::Param(_) | Type::Var(_), _) => true,
        (Type::Bool, Value::Bool(_))
        | (Type::Int, Value::Int(_))
        | (Type::Uint, Value::Uint(_))
        | (Type::Double, Value::Double(_))
        | (Type::String, Value::Str(_))
        | (Type::Bytes, Value::Bytes(_))
        | (Type::Duration, Value::Duration(_))
        | (Type::Timestamp, Value::Timestamp(_))
        | (Type::Null, Value::Null)
        | (Type::Type(_), Value::Type(_)) => true,
        (Type::Optional(inner), Value::Optional(value)) => value.as_ref().is_none_or(|value| is_of(inner, value)),
        (Type::List(item), Value::List(_) | Value::Tree(Tree::List(_), _)) => {
            let list = value.as_list().expect("matched above");
            list.is_empty() || list.get(0).is_ok_and(|first| is_of(item, &first))
        }
        (Type::Map(..), value) => value.as_map().is_some_and(|map| !map.is_message()),
        (Type::Opaque(name), value) => value.type_of().runtime_name() == *name,
        _ => false,
    }
}
