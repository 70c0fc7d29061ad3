//! The list of rows. A row's constant and its id have one name: `table::id::POD` is the id of `pod::POD`.

use crate::KindSpec;

/// Declares modules, the table and the ids in one place.
macro_rules! kinds {
    ($($module:ident :: $name:ident),* $(,)?) => {
        /// All built-in kinds; a kind's place is its id.
        pub static KINDS: &[&KindSpec] = &[$(&crate::table::$module::$name),*];

        /// Ids of the built-in kinds.
        pub mod id {
            use corten_object::KindId;

            #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
            enum Place { $($name),* }
            $(
                #[doc = concat!("Id of `", stringify!($name), "`.")]
                pub const $name: KindId = KindId(Place::$name as u32);
            )*
        }
    };
}

#[path = "pod.rs"]
pub mod pod;

kinds! {
    pod::POD,
}
