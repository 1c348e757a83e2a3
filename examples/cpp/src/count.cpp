// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "text.h"

std::vector<std::pair<std::string, std::size_t>> text::most_frequent(const std::vector<std::string> &words,
								     std::size_t n)
{
	std::map<std::string, std::size_t> counts;

	for (const auto &w : words)
		++counts[w];
	std::vector<std::pair<std::string, std::size_t>> all(counts.begin(), counts.end());
	std::stable_sort(all.begin(), all.end(),
			 [](const auto &a, const auto &b) { return a.second > b.second; });
	all.resize(std::min(n, all.size()));
	return all;
}
