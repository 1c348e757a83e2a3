// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "text.h"

// What the other headers of the standard library would be here for comes precompiled.

std::vector<std::string> text::split(const std::string &text)
{
	static const std::regex word("[[:alpha:]]+");
	std::vector<std::string> words;

	for (std::sregex_iterator it(text.begin(), text.end(), word), end; it != end; ++it) {
		std::string w = it->str();
		std::transform(w.begin(), w.end(), w.begin(), [](unsigned char c) { return std::tolower(c); });
		words.push_back(std::move(w));
	}
	return words;
}
