// SPDX-License-Identifier: Apache-2.0 OR MIT
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace text {

// The words of a text, in small letters.
std::vector<std::string> split(const std::string &text);

// The N words that are there most often, with how often; equally frequent ones by the alphabet.
std::vector<std::pair<std::string, std::size_t>> most_frequent(const std::vector<std::string> &words,
							       std::size_t n);

} // namespace text
