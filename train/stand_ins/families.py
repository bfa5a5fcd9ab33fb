"""Families of things: inside one of them the nearest known thing may stand for one that is not known.

`lemma number` names a meaning of WordNet; the text behind it is the word for the note ("the nearest bird"). Families
are small on purpose: leaving a word out with a note beats a wrong picture.
"""

FAMILIES = """
bird 1: bird
bear 1: bear
feline 1: cat
canine 2: dog
fox 1: fox
equine 1: horse
bovine 1: cattle
sheep 1: sheep
goat 1: goat
swine 1: pig
deer 1: deer
leporid 1: rabbit
ape 1: ape
monkey 1: monkey
whale 2: whale
cetacean 1: sea mammal
shark 1: shark
fish 1: fish
crustacean 1: shellfish
gastropod 1: snail
cephalopod 1: squid
beetle 1: beetle
bee 1: bee
lepidopterous insect 1: butterfly
arachnid 1: spider
frog 1: frog
crocodilian reptile 1: crocodile
chelonian 1: turtle
lizard 1: lizard
dinosaur 1: dinosaur
snake 1: snake
heavier-than-air craft 1: aircraft
aircraft 1: aircraft
boat 1: boat
vessel 2: boat
sailing vessel 1: sailing boat
motor vehicle 1: motor vehicle
truck 1: truck
bus 1: bus
bicycle 1: bicycle
locomotive 1: train
train 1: train
spacecraft 1: spacecraft
stringed instrument 1: stringed instrument
percussion instrument 1: drum
guitar 1: guitar
bowed stringed instrument 1: stringed instrument
chair 1: chair
seat 3: seat
table 2: table
bed 1: bed
house 1: house
castle 2: castle
building 1: building
hat 1: hat
headdress 1: hat
shoe 1: shoe
footwear 2: shoe
timepiece 1: clock
clock 1: clock
camera 1: camera
ball 1: ball
bell 1: bell
lamp 1: lamp
doll 1: doll
writing implement 1: pen
hammer 2: hammer
cutting implement 1: cutting tool
citrus 1: citrus fruit
berry 1: berry
edible fruit 1: fruit
melon 1: melon
root vegetable 1: root vegetable
cruciferous vegetable 1: vegetable
solanaceous vegetable 1: vegetable
cake 3: cake
cookie 1: cookie
sandwich 1: sandwich
frozen dessert 1: frozen dessert
cheese 1: cheese
pizza 1: pizza
doughnut 2: doughnut
flower 1: flower
bulbous plant 1: flower
conifer 1: tree
palm 3: palm
tree 1: tree
cactus 1: cactus
fungus 1: mushroom
mushroom 2: mushroom
gem 1: gem
box 1: box
bag 1: bag
cup 1: cup
bottle 1: bottle
bowl 1: bowl
sword 1: sword
knife 1: knife
gun 1: gun
computer 1: computer
telephone 1: telephone
coat 1: coat
dress 1: dress
trouser 1: trousers
shirt 1: shirt
bread 1: bread
candy 1: candy
soldier 1: soldier
musician 1: musician
athlete 1: athlete
child 1: child
woman 1: woman
man 1: man
"""


def family_lines() -> list[tuple[str, int, str]]:
    """(lemma, number of its meaning, word for the note) of each family."""
    lines = []
    for line in FAMILIES.strip().splitlines():
        key, _, said = line.partition(": ")
        lemma, _, number = key.rpartition(" ")
        lines.append((lemma, int(number), said))
    return lines
