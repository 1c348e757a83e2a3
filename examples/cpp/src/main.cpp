// SPDX-License-Identifier: Apache-2.0 OR MIT
#include <iostream>
#include <iterator>

#include "text.h"

int main()
{
	const std::string all{std::istreambuf_iterator<char>(std::cin), {}};

	for (const auto &[word, n] : text::most_frequent(text::split(all), 3))
		std::cout << n << ' ' << word << '\n';
}
