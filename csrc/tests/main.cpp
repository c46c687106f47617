#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

#include "tests/backend.hpp"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const std::string reason = sem::backend::unavailable();
  if (!reason.empty() && !GTEST_FLAG_GET(list_tests)) {
    if (std::getenv("SEM_REQUIRE_DEVICE") != nullptr) {
      std::cout << "SEM_REQUIRE_DEVICE is set, and there is " << reason << std::endl;
      return 1;
    }
    std::cout << "[  SKIPPED ] " << reason << std::endl;  // what ctest looks for
    return 0;
  }
  return RUN_ALL_TESTS();
}
