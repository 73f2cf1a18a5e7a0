// Questions to begin with: parts that do not need each other, in the words of the package's model.

export const EXAMPLES = [
  {
    name: "Four tasks, one of them in two parts",
    text:
      "Please solve this sheet:\n1. A farm keeps 4 cows, 3 ducks and 5 bees, so how many legs are " +
      "there altogether?\n2. (a) what is 9 + 8 - 5 + 7; (b) sort 6, 2, 9, 4 in ascending order.\n" +
      "3. Put the words rain, sun, wind, snow in reverse order.\n4. Which of 3, 8, 5, 9 are larger than 4?",
  },
  {
    name: "Three short sums",
    text: "Please solve this sheet:\n1. What is 3 + 4 + 9?\n2. What is 15 - 6 + 2?\n3. What is 7 + 8 - 5 + 1?",
  },
  {
    name: "Two lists to put in order",
    text:
      "Please solve this sheet:\n1. Sort 8, 3, 7, 1 in ascending order.\n" +
      "2. Put the words red, green, blue, black in reverse order.",
  },
];
