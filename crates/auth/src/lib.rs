//! Who is calling and may they: certificates, tokens, RBAC.
