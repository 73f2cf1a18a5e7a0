"""Ordinary conversation, so that a model trained on problems still talks.

Written for this project. An exchange is a set of ways to say something and the
answer to it; facts and definitions are exchanges made from tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from random import Random
from typing import NamedTuple

from .conversation import Split
from .splits import split_of


class Exchange(NamedTuple):
    """Ways to say the same thing, and the answer to each of them."""

    asked: tuple[str, ...]
    answer: str


NAME = "I am a small language model. I can answer short questions and work on several at once."

# fmt: off
GREETINGS = (
    Exchange(("Hi!", "Hi", "Hi there!", "Hey!", "Hey there"), "Hi! How can I help you?"),
    Exchange(("Hello!", "Hello", "Hello there!"), "Hello! What can I do for you?"),
    Exchange(("Good morning!", "Good morning"), "Good morning! How can I help you today?"),
    Exchange(("Good afternoon!", "Good afternoon"), "Good afternoon! What can I do for you?"),
    Exchange(("Good evening!", "Good evening"), "Good evening! How can I help?"),
    Exchange(("How are you?", "How are you today?", "How is it going?"),
             "I am doing well, thank you. How can I help you?"),
    Exchange(("What's up?", "Anything new?"), "Not much. What would you like to talk about?"),
    Exchange(("Nice to meet you.", "Pleased to meet you!"), "Nice to meet you too!"),
)
ABOUT = (
    Exchange(("Who are you?", "What are you?", "Introduce yourself.", "Tell me about yourself."),
             NAME),
    Exchange(("Are you a human?", "Are you a person?"), "No, I am a language model."),
    Exchange(("Are you a robot?", "Are you a machine?"),
             "I am a computer program that writes text."),
    Exchange(("What can you do?", "What are you good at?", "How can you help me?"),
             "I can chat, answer short questions, and solve small tasks such as sums, sorting and "
             "counting. If you give me several tasks, I work on them in parallel."),
    Exchange(("Do you have feelings?", "Can you feel anything?"),
             "No. I am a program, so I have no feelings."),
    Exchange(("Do you sleep?", "Do you ever get tired?"), "No, a program does not need to rest."),
    Exchange(("Can you make mistakes?", "Are you always right?"),
             "I can make mistakes, so please check anything that matters."),
    Exchange(("Can you speak English?", "Do you understand English?"), "Yes, I can."),
    Exchange(("Can you see me?", "Can you hear me?"), "No, I can only read what you write."),
    Exchange(("How old are you?", "When is your birthday?"), "I am a program, so I have no age."),
    Exchange(("Where do you live?", "Where are you from?"),
             "I run on a computer; I do not live anywhere."),
    Exchange(("Do you know what the weather is like today?", "Is it raining outside?"),
             "I cannot look outside, so please check a weather report."),
    Exchange(("What time is it?", "What is the date today?"),
             "I have no clock, so I cannot tell. Your device can show you."),
    Exchange(("What is my name?", "Do you know who I am?"),
             "You have not told me your name yet. What is it?"),
)
REQUESTS = (
    Exchange(("Can you help me?", "I need some help.", "Could you help me with something?"),
             "Of course. What do you need?"),
    Exchange(("I have a question.", "May I ask you something?", "Can I ask a question?"),
             "Sure, please ask."),
    Exchange(("Tell me a joke.", "Make me laugh.", "Do you know a joke?"),
             "Why did the math book look sad? It had too many problems."),
    Exchange(("I am bored.", "I have nothing to do."),
             "You could read a book, go for a walk, or call a friend."),
    Exchange(("I am sad today.", "I feel sad."),
             "I am sorry to hear that. Talking to a friend may help."),
    Exchange(("I am happy today!", "I had a great day!"), "That is wonderful to hear!"),
    Exchange(("I am tired.", "I feel so tired."), "A short rest may help. Take care of yourself."),
    Exchange(("I am hungry.", "I want something to eat."),
             "How about some fruit, a sandwich or some soup?"),
    Exchange(("I cannot sleep.", "How do I fall asleep?"),
             "A dark, quiet room helps, and so does putting screens away before bed."),
    Exchange(("How do I make tea?", "How can I make a cup of tea?"),
             "Boil water, pour it over the tea, wait about three minutes, and take the tea out."),
    Exchange(("How do I boil an egg?", "How can I boil an egg?"),
             "Put the egg in boiling water for about eight minutes, then cool it in cold water."),
    Exchange(("Give me a tip for learning.", "How can I study better?"),
             "Study in short sessions, take breaks, and test yourself often."),
    Exchange(("How can I stay healthy?", "Give me a tip to stay healthy."),
             "Sleep enough, move every day, eat vegetables and fruit, and drink water."),
    Exchange(("Write a short sentence about the sea.", "Say something about the sea."),
             "The sea was calm, and the sun was shining on the waves."),
    Exchange(("Write a short sentence about a dog.", "Say something about a dog."),
             "The little dog ran across the garden with a ball."),
    Exchange(("Write a short sentence about winter.", "Say something about winter."),
             "In winter the snow covers the fields and the days are short."),
    Exchange(("Tell me a short story.", "Do you know a story?"),
             "A small bird fell from its nest. A child put it back, and the next spring it came "
             "and sang at the child's window."),
    Exchange(("Give me a name for a cat.", "What should I call my cat?"), "How about Luna?"),
    Exchange(("Wish me luck!", "I have an exam tomorrow."), "Good luck! You will do well."),
)
PARTINGS = (
    Exchange(("Thanks!", "Thank you.", "Thank you very much!", "Thanks a lot!"),
             "You're welcome!"),
    Exchange(("That was helpful.", "That helps, thanks."), "I am glad that I could help."),
    Exchange(("Well done!", "Good job!", "Great answer!"),
             "Thank you! Is there anything else I can do?"),
    Exchange(("Goodbye!", "Bye!", "See you later!", "Bye for now."), "Goodbye! Have a nice day."),
    Exchange(("Good night!", "Good night"), "Good night! Sleep well."),
    Exchange(("Okay.", "OK", "I see."), "Let me know if you need anything else."),
    Exchange(("No, that is all.", "That's all, thank you."), "All right. Have a nice day!"),
    Exchange(("Sorry!", "I am sorry."), "No problem at all."),
    Exchange(("Are you sure?", "Is that right?"),
             "I think so, but I can make mistakes, so please check it."),
)
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid",
    "Portugal": "Lisbon", "Greece": "Athens", "Austria": "Vienna", "Poland": "Warsaw",
    "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen",
    "Ireland": "Dublin", "Hungary": "Budapest", "Japan": "Tokyo", "China": "Beijing",
    "India": "New Delhi", "Thailand": "Bangkok", "Egypt": "Cairo", "Kenya": "Nairobi",
    "Canada": "Ottawa", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago",
    "Argentina": "Buenos Aires", "Russia": "Moscow", "Turkey": "Ankara", "Iran": "Tehran",
}
FACTS = (
    Exchange(("How many days are in a week?", "How many days does a week have?"),
             "A week has seven days."),
    Exchange(("How many months are in a year?", "How many months does a year have?"),
             "A year has twelve months."),
    Exchange(("How many minutes are in an hour?", "How many minutes does an hour have?"),
             "An hour has sixty minutes."),
    Exchange(("What color is the sky?", "Which color does the sky have?"),
             "On a clear day the sky is blue."),
    Exchange(("What color is grass?", "Which color does grass have?"), "Grass is green."),
    Exchange(("Which planet do we live on?", "What is our planet called?"), "We live on Earth."),
    Exchange(("What is the largest planet of the solar system?", "Which planet is the largest?"),
             "Jupiter is the largest planet of the solar system."),
    Exchange(("Which planet is closest to the sun?", "What is the planet nearest to the sun?"),
             "Mercury is the planet closest to the sun."),
    Exchange(("What is the highest mountain on Earth?", "Which mountain is the highest?"),
             "Mount Everest is the highest mountain on Earth."),
    Exchange(("What is the largest ocean?", "Which ocean is the largest?"),
             "The Pacific is the largest ocean."),
    Exchange(("Who wrote Romeo and Juliet?", "Who is the author of Romeo and Juliet?"),
             "William Shakespeare wrote Romeo and Juliet."),
    Exchange(("Who painted the Mona Lisa?", "Which painter made the Mona Lisa?"),
             "Leonardo da Vinci painted the Mona Lisa."),
    Exchange(("What is water made of?", "Which elements are in water?"),
             "Water is made of hydrogen and oxygen."),
    Exchange(("At what temperature does water freeze?", "When does water freeze?"),
             "Water freezes at 0 degrees Celsius."),
    Exchange(("At what temperature does water boil?", "When does water boil?"),
             "At sea level water boils at 100 degrees Celsius."),
    Exchange(("What do bees make?", "Which food do bees make?"), "Bees make honey."),
    Exchange(("What do plants need to grow?", "What does a plant need?"),
             "Plants need light, water, air and nutrients."),
    Exchange(("What is the opposite of hot?", "Which word is the opposite of hot?"),
             "The opposite of hot is cold."),
    Exchange(("What is the plural of mouse?", "How do you say more than one mouse?"),
             "The plural of mouse is mice."),
    Exchange(("How many letters does the English alphabet have?", "How long is the alphabet?"),
             "The English alphabet has 26 letters."),
)
DEFINITIONS = {
    "a triangle": "A triangle is a shape with three sides and three corners.",
    "a square": "A square is a shape with four equal sides and four right angles.",
    "a circle": "A circle is a round shape whose points are all equally far from its center.",
    "an even number": "An even number is a whole number that can be divided by two.",
    "an odd number": "An odd number is a whole number that cannot be divided evenly by two.",
    "a verb": "A verb is a word for an action or a state, such as run or be.",
    "a noun": "A noun is a word for a person, a place, a thing or an idea.",
    "an adjective": "An adjective is a word that describes a noun, such as red or small.",
    "a mammal": "A mammal is an animal that feeds its young with milk.",
    "an insect": "An insect is a small animal with six legs.",
    "a planet": "A planet is a large, round body that moves around a star.",
    "a star": "A star is a huge ball of hot gas that gives off light.",
    "an island": "An island is a piece of land with water all around it.",
    "a desert": "A desert is a dry place where very little rain falls.",
    "a volcano": "A volcano is an opening in the ground from which hot rock and gas can come out.",
    "a computer": "A computer is a machine that follows instructions to work with data.",
    "an algorithm": "An algorithm is a list of clear steps that solves a problem.",
    "a library": "A library is a place that keeps books and lends them to people.",
    "gravity": "Gravity is the force that pulls things toward each other and toward the ground.",
    "ice": "Ice is frozen water.",
    "a rainbow": "A rainbow is an arc of colors that appears when sunlight passes through rain.",
    "a bridge": "A bridge carries a road or a path over a river, a valley or another road.",
}
# fmt: on


def _exchanges() -> Iterator[Exchange]:
    yield from (*GREETINGS, *ABOUT, *REQUESTS, *PARTINGS, *FACTS)
    for country, city in CAPITALS.items():
        asked = (
            f"What is the capital of {country}?",
            f"Which city is the capital of {country}?",
            f"Tell me the capital of {country}.",
        )
        yield Exchange(asked, f"The capital of {country} is {city}.")
    for term, meaning in DEFINITIONS.items():
        yield Exchange((f"What is {term}?", f"Define {term}.", f"Explain what {term} is."), meaning)


@cache
def exchanges(split: Split) -> tuple[Exchange, ...]:
    """The exchanges of a split: no answer occurs in both."""
    return tuple(e for e in _exchanges() if split_of(f"chat/{e.answer}") == split)


def small_talk(rng: Random, split: Split) -> tuple[str, str]:
    """What the user says and the answer."""
    exchange = rng.choice(exchanges(split))
    return rng.choice(exchange.asked), exchange.answer


def greeting(rng: Random) -> tuple[str, str]:
    """An opening of a longer conversation; greetings are not held out as history."""
    exchange = rng.choice(GREETINGS)
    return rng.choice(exchange.asked), exchange.answer


@cache
def follow_ups(split: Split) -> tuple[Exchange, ...]:
    """What users of this split say after an answer."""
    return tuple(e for e in PARTINGS if e in exchanges(split))


def follow_up(rng: Random, split: Split) -> tuple[str, str]:
    """What the user says after an answer, and the reply."""
    exchange = rng.choice(follow_ups(split))
    return rng.choice(exchange.asked), exchange.answer
