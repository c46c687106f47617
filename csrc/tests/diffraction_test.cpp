#include "sem/diffraction.hpp"

#include <gtest/gtest.h>
TEST(Diffraction, Placeholder) {}
