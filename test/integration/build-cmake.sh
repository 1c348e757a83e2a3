#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A C++ project of CMake and Ninja through CMAKE_CXX_COMPILER_LAUNCHER: templates, a header that a
# command generates during the build, a precompiled header, ninja's dependency files.
# limit: 300
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need cmake ninja g++
lab_enter "$@"
lab_start builder root
lab_config
P=$WS/project

project() {
	local i
	mkdir -p "$P/src" "$P/include/deep/er"
	cat >"$P/CMakeLists.txt" <<-'EOF'
		cmake_minimum_required(VERSION 3.16)
		project(proof CXX)
		set(CMAKE_CXX_STANDARD 17)
		set(CMAKE_BUILD_TYPE Debug)
		find_package(Threads REQUIRED)
		add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/gen/table.h
			COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/gen
			COMMAND sh ${CMAKE_SOURCE_DIR}/table.sh ${CMAKE_BINARY_DIR}/gen/table.h
			DEPENDS table.sh)
		add_custom_target(table DEPENDS ${CMAKE_BINARY_DIR}/gen/table.h)
		file(GLOB PARTS src/part*.cpp)
		add_library(parts STATIC ${PARTS})
		add_dependencies(parts table)
		target_include_directories(parts PUBLIC include ${CMAKE_BINARY_DIR}/gen)
		add_library(pre STATIC src/pre1.cpp src/pre2.cpp src/pre3.cpp)
		target_include_directories(pre PUBLIC include)
		target_precompile_headers(pre PRIVATE <vector> <string> include/deep/er/shape.h)
		add_executable(proof src/main.cpp)
		target_link_libraries(proof parts pre Threads::Threads)
	EOF
	cat >"$P/table.sh" <<-'EOF'
		for i in 1 2 3 4 5 6 7 8; do echo "inline constexpr int table_$i = $i * $i;"; done >"$1"
	EOF
	cat >"$P/include/deep/er/shape.h" <<-'EOF'
		#pragma once
		#include <array>
		#include <utility>
		template <int N> struct shape {
			static_assert(N >= 0);
			template <int... I> static constexpr int sum(std::integer_sequence<int, I...>)
			{ return (I + ... + 0); }
			int value() const { return sum(std::make_integer_sequence<int, N>()) + inner.value(); }
			shape<N - 1> inner;
		};
		template <> struct shape<0> { int value() const { return 0; } };
	EOF
	for i in $(seq 1 40); do
		cat >"$P/src/part$i.cpp" <<-EOF
			#include "deep/er/shape.h"
			#include "table.h"
			#if __has_include("missing.h")
			#error a header that is not there was found
			#endif
			namespace { struct local { int v = table_$((i % 8 + 1)); }; }
			int part$i(std::array<int, 64> &a)
			{
				auto add = [&a](auto x) { a[$i] += x; return a[$i]; };
				return add(shape<$i>().value()) ^ add(local().v);
			}
		EOF
	done
	for i in 1 2 3; do
		echo "std::vector<std::string> pre$i() { return {std::to_string(shape<$i>().value())}; }" \
			>"$P/src/pre$i.cpp"
	done
	{
		printf '#include <array>\n#include <cstdio>\n#include <string>\n#include <vector>\n'
		for i in $(seq 1 40); do
			echo "int part$i(std::array<int, 64> &a);"
		done
		echo 'std::vector<std::string> pre2();'
		echo 'int main() { std::array<int, 64> a{}; int s = 0;'
		for i in $(seq 1 40); do
			echo "s += part$i(a);"
		done
		echo 'std::puts((std::to_string(s) + " " + pre2()[0]).c_str()); }'
	} >"$P/src/main.cpp"
}

build() { # LAUNCHER LOG
	rm -rf "$P/build"
	cmake -S "$P" -B "$P/build" -G Ninja ${1:+-DCMAKE_CXX_COMPILER_LAUNCHER=$1} >"$2.cmake" 2>&1 ||
		fail "cmake failed: $(tail -n 3 "$2.cmake")"
	ninja -C "$P/build" -j8 >"$2" 2>&1 || fail "ninja failed: $(tail -n 5 "$2")"
}

project
build '' "$LAB/local.log"
save_objects "$P/build" "$LAB/local"
said=$("$P/build/proof")

CONCC_EXPLAIN=1 build concc-cc "$LAB/remote.log"
expect_same_objects "$LAB/local" "$P/build"
expect_remote_share 95 "$LAB/remote.log" 'link|query'
expect_ge "compiles that ran remotely" "$(explained_remote "$LAB/remote.log")" 42
expect_eq "what the program says" "$("$P/build/proof")" "$said"

# An edit of the one generator reaches all parts, and nothing else is compiled.
sed -i 's/\$i \* \$i/$i + $i/' "$P/table.sh"
CONCC_EXPLAIN=1 ninja -C "$P/build" -j8 >"$LAB/again.log" 2>&1 || fail "the second build failed"
expect_eq "compiles after the edit" "$(explained_remote "$LAB/again.log")" 40
expect_ne "what the program says after the edit" "$("$P/build/proof")" "$said"
lab_stop
