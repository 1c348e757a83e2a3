// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `#[derive(Names)]`: an enum's variants, by their names.

use proc_macro::{Delimiter, TokenStream, TokenTree};

/// Adds `ALL: &[(&str, Self)]` to an enum whose variants carry no fields.
#[proc_macro_derive(Names)]
pub fn names(item: TokenStream) -> TokenStream {
    let tokens: Vec<TokenTree> = item.into_iter().collect();
    let at = tokens
        .iter()
        .position(|t| t.to_string() == "enum")
        .expect("Names is for enums");
    let name = tokens[at + 1].to_string();
    let body = tokens.iter().find_map(|t| match t {
        TokenTree::Group(g) if g.delimiter() == Delimiter::Brace => Some(g.stream()),
        _ => None,
    });
    let variants: String = body
        .expect("an enum has variants")
        .into_iter()
        .filter_map(|t| match t {
            TokenTree::Ident(v) => Some(format!("(\"{v}\", Self::{v}),")),
            _ => None,
        })
        .collect();
    format!("impl {name} {{ pub const ALL: &'static [(&'static str, Self)] = &[{variants}]; }}")
        .parse()
        .unwrap()
}
