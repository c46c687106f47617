#include <gtest/gtest.h>

#include "tests/backend.hpp"

namespace {

class NeedsBackend : public ::testing::Environment {
  void SetUp() override {
    const std::string reason = sem::backend::unavailable();
    if (!reason.empty()) GTEST_SKIP() << reason;
  }
};

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  ::testing::AddGlobalTestEnvironment(new NeedsBackend);
  return RUN_ALL_TESTS();
}
