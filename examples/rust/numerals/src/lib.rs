// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Roman numerals.

use names::Names;

#[derive(Clone, Copy, Names)]
pub enum Sign {
    M = 1000,
    CM = 900,
    D = 500,
    CD = 400,
    C = 100,
    XC = 90,
    L = 50,
    XL = 40,
    X = 10,
    IX = 9,
    V = 5,
    IV = 4,
    I = 1,
}

/// The numeral of a number from 1 to 3999.
pub fn roman(mut n: u32) -> Option<String> {
    if !(1..4000).contains(&n) {
        return None;
    }
    let mut text = String::new();
    for (name, sign) in Sign::ALL {
        while n >= *sign as u32 {
            n -= *sign as u32;
            text.push_str(name);
        }
    }
    Some(text)
}
