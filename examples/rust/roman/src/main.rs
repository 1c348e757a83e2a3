// SPDX-License-Identifier: Apache-2.0 OR MIT

fn main() {
    for arg in std::env::args().skip(1) {
        match arg.parse().ok().and_then(numerals::roman) {
            Some(text) => println!("{arg} {text}"),
            None => println!("{arg} has no numeral"),
        }
    }
}
